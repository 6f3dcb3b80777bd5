"""What can be exported: targets, and what files for other people's runtimes may be written for. Imports nothing."""

#: Export targets -> file suffix.
TARGETS = {"tflite": ".tflite", "onnx": ".onnx", "bdn": ".bdn", "c": ".c"}
#: Target -> its profiles; the first is the default.
PROFILES = {"tflite": ("stock", "extended"), "onnx": ("portable", "qonnx")}
