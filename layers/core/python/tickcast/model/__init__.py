"""The model: the rows it is trained on, the network, its trainer, its calibration, what it forecasts."""
