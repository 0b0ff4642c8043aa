"""tubelet: motion-aware masked pre-training of video transformers on Ray.

Importing this package imports neither torch nor ray nor deepspeed; each module imports what it needs.
"""

__version__ = "0.1.0"
