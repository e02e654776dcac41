"""For the API reference: our docstrings say `Example:`, Griffe knows a section of that kind as `Examples:`."""

import re
from typing import Any

import griffe


class Example(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
