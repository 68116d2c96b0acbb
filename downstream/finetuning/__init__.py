"""Fine-tuning in detectron2: what train_voc.py and train_coco.py do."""
