"""Other methods with teachers, queues of keys, pre-training or another optimizer."""

from mbib_core.methods.method import Method

CONTRAST: dict[str, Method] = {}
