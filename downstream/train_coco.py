#!/usr/bin/env python
"""Fine-tune a pre-trained trunk with detectron2 on COCO 2017: Mask R-CNN, R50-C4 (default) or R50-FPN, 1x schedule.

    python train_coco.py --weights pixpro.pkl [--config-file configs/coco_fpn_1x.yaml] [flags] [KEY VALUE ...]

Data: $DETECTRON2_DATASETS/coco/{annotations,train2017,val2017} (default: datasets/ beside this file). Weights come from
convert-pretrain-to-detectron2.py; what they say about their images is compared with the config before anything runs.
Needs detectron2; detect.py does boxes on torchvision alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream.finetuning.command import main

if __name__ == "__main__":
    main(__doc__, "coco_c4_1x", ("coco_2017_train", "coco_2017_val"))
