"""Parts over a Ray cluster: Ray Data deals them out to actors, each with one engine; rows come back by value."""

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from spnet.cluster import in_a_line, library, slots
from spnet.data.parquet_rows import ForwardRows
from spnet.errors import UserError
from spnet.inference.batch.listing import Part
from spnet.inference.batch.rows import classify
from spnet.inference.engine import Engine

ANSWER = pa.schema([("number", pa.int64()), ("rows", pa.large_binary()), ("refused", pa.string())])
"""A row a part: its rows as an Arrow stream, or why it cannot be computed."""


class Worker:
    """What an actor does with the parts that it is dealt."""

    def __init__(self, engine: Engine, **how: Any) -> None:
        self.engine = engine
        self.how = {**how, "rows": ForwardRows()}

    def __call__(self, dealt: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._computed(pickle.loads(cell.as_py())) for cell in dealt["part"]], ANSWER)

    def _computed(self, part: Part) -> dict[str, Any]:
        try:
            ((_, rows),) = classify(self.engine, [part], **self.how)
        except UserError as error:  # as an exception it would come back in a page of Ray's
            return {"number": part.number, "refused": str(error)}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        return {"number": part.number, "rows": sink.getvalue().to_pybytes()}


def classify_on(
    ray: Any,
    engine: Engine,
    parts: Sequence[Part],
    *,
    batch_size: int,
    workers: int,
    moved: Callable[[int], None] = lambda photos: None,
) -> Iterator[tuple[Part, pa.Table]]:
    """`classify` over a cluster: each part as it is finished, in whatever order. An actor has one CPU; what a lost node
    was dealt, Ray deals again.

    Raises:
        UserError: as of `classify`, on whichever node.
    """
    data = library("ray.data")
    _quiet(data)
    how = {"batch_size": batch_size, "workers": workers, "base": os.getcwd()}  # an actor has another working folder
    items = [{"part": pickle.dumps(part)} for part in parts]
    dealt = data.from_items(items, override_num_blocks=len(items))
    computed = dealt.map_batches(
        Worker,
        fn_constructor_kwargs={"engine": engine, **how},
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        compute=data.ActorPoolStrategy(size=min(slots(ray, 1.0), len(parts))),
    )
    numbered = {part.number: part for part in parts}
    try:
        for answer in computed.iter_batches(batch_size=1, batch_format="pyarrow"):
            for found in answer.to_pylist():
                if found["refused"] is not None:
                    raise UserError(found["refused"])
                part = numbered[found["number"]]
                moved(len(part))
                yield part, pa.ipc.open_stream(found["rows"]).read_all()
    except ray.exceptions.RayError as error:
        raise UserError(
            f"the Ray cluster gave up; call again to go on from what is finished. It says: {in_a_line(error)}"
        ) from error


def _quiet(data: Any) -> None:
    """Ray Data speaks on stderr, where our own bar is: of its plans, and in pages of errors that it raises as well."""
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
