"""Batch inference: archives of photos to a Parquet file of rows, in parts that are computed and kept one by one.

listing   which photos, in which order, cut into parts
rows      the photos of a part to rows
parts     the folder of finished parts, and the file they become
predict   `predict_files`
on_ray    the same over a cluster
"""
