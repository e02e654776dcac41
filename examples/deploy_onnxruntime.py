"""Classify pictures with an exported network; needs numpy, onnxruntime and pillow, not spnet.

spnet export RUN network.onnx
python deploy_onnxruntime.py network.onnx PICTURE...
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

options: Any = onnxruntime.SessionOptions()
options.log_severity_level = 3  # defaults of optional inputs are no news
content = Path(sys.argv[1]).read_bytes()
try:
    session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
except Exception:  # onnxruntime raises types of its own
    sys.exit(f"{sys.argv[1]} is damaged or no ONNX file. Export the run again.")
text = session.get_modelmeta().custom_metadata_map
digest = text.get("sha256", "none")  # of the file's bytes, with a word as long where the digest itself stands
if hashlib.sha256(content.replace(digest.encode(), b"unsigned" * 8)).hexdigest() != digest:
    sys.exit(f"{sys.argv[1]} is damaged: its bytes are not those that were exported. Export the run again.")
classes, mean, std, (channels, height, width), macs, path = (
    json.loads(text[key]) for key in ("classes", "mean", "std", "input_shape", "macs", "path")
)
always = macs["stem"] + macs["head"] + macs["router_start"] + sum(macs["routers"])
for name in sys.argv[2:]:
    picture = ImageOps.exif_transpose(Image.open(name))  # as `spnet predict` does: upright, scaled to cover, centre cut
    picture = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC).convert("RGB" if channels == 3 else "L")
    pixels = np.asarray(picture, np.float32).reshape(height, width, channels) / 255
    image = ((pixels - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
    logits, *decisions = session.run(None, {"image": image})
    taken = path or decisions[0][0]  # a file of one path has no decisions to tell
    cost = always + sum(options[k] for options, k in zip(macs["blocks"], taken, strict=True))
    print(f"{name}: {classes[int(logits.argmax())]}  path {''.join(map(str, taken))}  {cost / 1e6:.2f} MMACs")
