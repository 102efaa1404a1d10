"""What one sample is: its channels, its sides, its frames. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from ditbench.methods.errors import ConfigError


@dataclass(frozen=True)
class Space:
    """The shape of one sample. In a batch the channel axis comes right after the rows, also of a video.

    channels  of a sample
    size      height and width; a whole number stands for a square
    frames    of a video; None: a picture
    scale     pixels of the decoded picture a side of a sample's element: 8 for latents of the usual autoencoders, 1
              where samples are pictures themselves

    Raises ConfigError.
    """

    channels: int
    size: tuple[int, int]
    frames: int | None = None
    scale: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.size, int):
            object.__setattr__(self, "size", (self.size, self.size))
        sides = tuple(self.size)
        numbers = (self.channels, *sides, 1 if self.frames is None else self.frames, self.scale)
        whole = all(isinstance(each, int) and each > 0 for each in numbers)
        if len(sides) != 2 or not whole:
            raise ConfigError(f"a space has whole positive numbers of channels, height and width, not {self}")
        object.__setattr__(self, "size", sides)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W), or (C, F, H, W) of a video."""
        return (self.channels, *(() if self.frames is None else (self.frames,)), *self.size)

    @property
    def elements(self) -> int:
        """Numbers in one sample."""
        product = self.channels * (self.frames or 1)
        return product * self.size[0] * self.size[1]

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture that is made of a sample: RGB where it is decoded."""
        height, width = (self.scale * side for side in self.size)
        return (self.channels if self.scale == 1 else 3, height, width)
