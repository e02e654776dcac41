"""`spnet bench`: measured speed-up of skipping over the strongest static network, beside what the multiply-adds
promise."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spnet.cli import Parser
from spnet.cli.named import HELP, Named, members, open_named
from spnet.cli.rules import add_exit

RATES = "0.3,0.5,0.7,0.9"


def configure(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("network", metavar="RUN|BACKBONE", help=f"{HELP}; or a backbone, whose weights are fresh then")
    parser.add_argument(
        "--rates",
        metavar="R,...",
        help=f"forced execution rates (default {RATES}); 'own': own decisions, which alone a cascade has",
    )
    parser.add_argument(
        "--budget", type=float, metavar="B", help="own decisions calibrated to this share of the static cost"
    )
    parser.add_argument(
        "--batches", default="1,64", metavar="B,...", help="batch sizes (default 1,64); 'none': --load alone"
    )
    parser.add_argument("--threads", default="1", metavar="T,...", help="thread counts (default 1)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="interleaved rounds (default 9)")
    parser.add_argument("--seconds", type=float, default=0.4, metavar="S", help="seconds per measurement (default 0.4)")
    parser.add_argument("--lookahead", type=int, default=6, metavar="K", help="of a BACKBONE's routers (default 6)")
    parser.add_argument(
        "--hidden", type=int, default=16, metavar="H", help="width of a BACKBONE's routers (default 16)"
    )
    add_exit(parser)
    parser.add_argument("--compile", action="store_true", help="also time torch.compile, weights frozen")
    parser.add_argument("--plain", action="store_true", help="also time the portable graph, as exported")
    parser.add_argument(
        "--load",
        action="store_true",
        help="also answer single images that come at random, by own decisions, with as many workers as --threads says: "
        "how long they wait at 50 %% and 90 %% of what the static network can answer, beside that network",
    )
    parser.add_argument("--out", metavar="DIR", help="write bench.json and bench.png there")
    parser.add_argument("--no-profile", action="store_true", help="leave this machine's profile as it is")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from spnet.bench.bench import OWN, BenchConfig, bench
    from spnet.bench.load import under_load
    from spnet.bench.profile import Profile, network_key, save_profile
    from spnet.bench.rivals import not_measured
    from spnet.errors import UserError
    from spnet.inference.runtimes.onnx.library import load_runtime
    from spnet.settings import convert
    from spnet.training.finish import made_with

    batches = () if args.batches == "none" else convert("--batches", tuple[int, ...], args.batches)
    own = len(members(args.network)) > 1 or args.budget is not None or not batches
    asked = args.rates or (OWN if own else RATES)
    rates = tuple(rate if rate == OWN else convert("--rates", float, rate) for rate in asked.split(","))
    if args.budget is not None and OWN not in rates and not args.load:
        raise UserError("a budget is met by own decisions: add --rates own.")
    apart = {"--rates": args.rates, "--compile": args.compile, "--plain": args.plain}
    if not batches and any(apart.values()):
        raise UserError(f"--batches none leaves --load alone: leave out {', '.join(k for k in apart if apart[k])}.")
    config = BenchConfig(
        rates=rates,
        batches=batches,
        threads=convert("--threads", tuple[int, ...], args.threads),
        rounds=args.rounds,
        seconds=args.seconds,
        compiled=args.compile,
        plain=args.plain,
        exit_confidence=args.exit_confidence,
        load=args.load,
    )
    runtime = load_runtime()
    net, images, lookahead, data = _network(args, OWN in rates or args.load, max(batches, default=1))
    records = bench(net, config, images, data=data) if batches else []
    facts = {**asdict(made_with("fp32")), "onnxruntime": runtime.__version__}
    result: dict[str, Any] = {
        "network": args.network,
        "lookahead": lookahead,
        "exit_confidence": args.exit_confidence,
        "budget": args.budget,
        "made_with": facts,
        "not_measured": not_measured(args.compile) if batches else {},
        "records": records,
    }
    if args.load:
        how = {"rounds": args.rounds, "seconds": args.seconds, "exit_confidence": args.exit_confidence}
        result["load"] = [under_load(net, images, workers, **how) for workers in config.threads]
    limits = {form: _limits(records, form == "single") for form in ("single", "batch")}
    if not args.no_profile and all(limits.values()):
        label = f"{args.network}, threads {args.threads}, onnxruntime {runtime.__version__}"
        profile = Profile(min(limits["single"]), min(limits["batch"]), label, network_key(net))
        result["profile"] = str(save_profile(profile))
    elif not args.no_profile and records and any(isinstance(rate, float) for rate in rates):
        print("no profile written: it takes two rates and three undisturbed rounds in each", file=sys.stderr)
    if args.out:
        from spnet.bench.picture import draw
        from spnet.files import write_json

        write_json(Path(args.out) / "bench.json", result)
        if records and not draw(result, Path(args.out) / "bench.png"):
            print("no bench.png drawn: one rate is a point, a curve takes two", file=sys.stderr)
        result["out"] = args.out
    return result


def _limits(records: list[dict[str, Any]], single: bool) -> list[float]:
    return [r["break_even_cost"] for r in records if (r["batch"] == 1) == single and "break_even_cost" in r]


def _network(args: argparse.Namespace, real: bool, count: int) -> tuple[Any, Any, int | None, Any]:
    """The network; real images where its own decisions are wanted; how many blocks a router decides for, None where
    the method has no such choice; the data it was trained on, None where they are not here and not needed."""
    from spnet.backbones import list_backbones
    from spnet.build import create_model
    from spnet.errors import UserError

    if args.network in list_backbones():
        if real:
            raise UserError("fresh weights have no decisions worth timing: give a trained RUN for own ones.")
        net = create_model(args.network, "dynamic", lookahead=args.lookahead, hidden=args.hidden, seed=0)
        return net, None, args.lookahead, None
    named = open_named(args.network)
    lookahead = named.config.resolved().get("lookahead")
    if not real:
        return named.net, None, lookahead, _if_here(named)
    data = named.data(None)
    if args.budget is not None:
        named.settle(data.train, args.budget, args.exit_confidence)
    images = data.test.select(range(min(max(512, count), len(data.test)))).images
    return named.net, named.net.prepare(images).float().numpy(), lookahead, data


def _if_here(named: Named) -> Any:
    """The data it was trained on; None, and a line about it, where they are not on this machine."""
    from spnet.errors import UserError

    try:
        return named.data(None, may_download=False)
    except UserError as error:
        print(f"int8 is timed but not judged: {error}", file=sys.stderr)
        return None


def describe(result: dict[str, Any]) -> str:
    from spnet.bench.load import describe as under_load
    from spnet.bench.table import describe as cell

    facts = result["made_with"]
    lines = [
        f"{result['network']} on {facts['hardware']}, torch {facts['torch']}, onnxruntime {facts['onnxruntime']}, fp32"
    ]
    lines += [cell(record) for record in result["records"]]
    lines += [under_load(record) for record in result.get("load", ())]
    lines += [f"not measured: {name} ({why})" for name, why in result["not_measured"].items()]
    lines += [f"profile written to {result['profile']}"] if "profile" in result else []
    return "\n".join(lines)
