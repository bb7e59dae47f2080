"""A small VQGAN, trained on the glyphs of Noto Color Emoji: data, training, evaluation."""
