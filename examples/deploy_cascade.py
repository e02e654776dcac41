"""Classify pictures with an exported cascade; needs numpy, onnxruntime and pillow, not spnet.

spnet export A+B cascade.onnx --budget 0.6
python deploy_cascade.py cascade.json PICTURE...

A member answers if it is surer than its confidence; else the next one looks at the picture.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

recipe = json.loads(Path(sys.argv[1]).read_text())
options: Any = onnxruntime.SessionOptions()
options.log_severity_level = 3  # defaults of optional inputs are no news
members: list[Any] = [
    onnxruntime.InferenceSession(Path(sys.argv[1]).with_name(name), options, providers=["CPUExecutionProvider"])
    for name in recipe["members"]
]
text = members[-1].get_modelmeta().custom_metadata_map
classes, mean, std, (channels, height, width) = (
    json.loads(text[key]) for key in ("classes", "mean", "std", "input_shape")
)
for name in sys.argv[2:]:
    picture = ImageOps.exif_transpose(Image.open(name))  # as `spnet predict` does: upright, scaled to cover, centre cut
    picture = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC).convert("RGB" if channels == 3 else "L")
    pixels = np.asarray(picture, np.float32).reshape(height, width, channels) / 255
    image = ((pixels - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
    for k, (member, confidence) in enumerate(zip(members, [*recipe["confidences"], -1.0], strict=True), 1):
        logits = member.run(["logits"], {"image": image})[0][0].astype(np.float64)
        sure = 1 / np.exp(logits - logits.max()).sum()
        if sure > confidence:
            print(f"{name}: {classes[int(logits.argmax())]}  ({100 * sure:.1f} %)  by member {k}")
            break
