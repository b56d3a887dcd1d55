"""Other bottlenecks, trained on the same network: what BIB is compared with in the chapters on theory."""

from mbib_core.methods.method import Method

BOTTLENECKS: dict[str, Method] = {}
