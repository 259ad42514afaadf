"""`bench`: latency, memory and FLOPs of models under methods, with the speed-up that the FLOPs allow."""
