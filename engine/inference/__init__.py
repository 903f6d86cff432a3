"""From pixels to maps: model file, device, patch grid and predictor."""
