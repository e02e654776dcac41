"""Measuring: multiply-adds against a referee, the machine's own speed, latency and throughput."""
