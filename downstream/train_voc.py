#!/usr/bin/env python
"""Fine-tune a pre-trained trunk with detectron2 on Pascal VOC: Faster R-CNN R50-C4, 24k iterations.

    python train_voc.py --weights pixpro.pkl [flags] [KEY VALUE ...]

Data: $DETECTRON2_DATASETS/VOC2007 and VOC2012 (default: datasets/ beside this file). Weights come from
convert-pretrain-to-detectron2.py; what they say about their images is compared with the config before anything runs.
Needs detectron2; detect.py does the same on torchvision alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream.finetuning.command import main

if __name__ == "__main__":
    main(__doc__, "voc_c4_24k", ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test"))
