"""Weights of these methods that their authors published, which users fetch themselves. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_DIT = "https://dl.fbaipublicfiles.com/DiT/models/"
_T_STITCH = "https://github.com/NVlabs/T-Stitch, folder dit: a link to Google Drive"
_DYDIT = "https://huggingface.co/heisejiasuo/DyDiT"
_SIT = "https://github.com/willisma/SiT: download.py has the address"
_NON_COMMERCIAL = "CC-BY-NC-4.0"
_UNKNOWN = "see where it is published"


@dataclass(frozen=True)
class PublicWeights:
    """A published checkpoint without a public digest.

    name       as suites say it: ``asset:NAME``
    file_name  as it was published, at ``published``
    method     the registered name that it fits, with ``config``
    waits      what waits for it, in words
    """

    name: str
    summary: str
    file_name: str
    published: str
    licence: str
    method: str
    waits: str
    config: Mapping[str, int]


def _of_model(
    name: str,
    summary: str,
    file_name: str,
    published: str,
    licence: str,
    method: str,
    waits: str = "suites that name it",
    config: Mapping[str, int] | None = None,
) -> PublicWeights:
    return PublicWeights(name, summary, file_name, published, licence, method, waits, config or {})


_WIDE = {"input_size": 64}  # latents of 512x512 pictures
PUBLIC = (
    _of_model(
        "dit-xl-2-256",
        "DiT-XL/2 at 256x256, 7 M steps",
        "DiT-XL-2-256x256.pt",
        f"{_DIT}DiT-XL-2-256x256.pt",
        _NON_COMMERCIAL,
        "dit-xl-2",
        "suite imagenet256",
    ),
    _of_model(
        "dit-xl-2-512",
        "DiT-XL/2 at 512x512, 3 M steps",
        "DiT-XL-2-512x512.pt",
        f"{_DIT}DiT-XL-2-512x512.pt",
        _NON_COMMERCIAL,
        "dit-xl-2",
        "suite imagenet512",
        config=_WIDE,
    ),
    _of_model(
        "dit-s-2-256",
        "DiT-S/2 at 256x256, 5 M steps, by NVIDIA",
        "dit_s_256.pt",
        _T_STITCH,
        "CC-BY-NC as the project states; see there",
        "dit-s-2",
    ),
    _of_model(
        "dit-b-2-256",
        "DiT-B/2 at 256x256, 1.6 M steps, by NVIDIA",
        "dit_b_256.pt",
        _T_STITCH,
        "CC-BY-NC as the project states; see there",
        "dit-b-2",
    ),
    _of_model(
        "dydit-xl-2-0.7",
        "DyDiT-XL/2 for 0.7 of DiT's FLOPs, release of 2025",
        "new_dydit0.7.pt",
        f"{_DYDIT}, folder new_release_2025_03_26",
        _UNKNOWN,
        "dydit-xl-2",
        "suite imagenet256",
    ),
    _of_model(
        "dydit-xl-2-0.5",
        "DyDiT-XL/2 for 0.5 of DiT's FLOPs, release of 2025",
        "new_dydit0.5.pt",
        f"{_DYDIT}, folder new_release_2025_03_26",
        _UNKNOWN,
        "dydit-xl-2",
        "suite imagenet256",
    ),
    _of_model(
        "dydit-xl-2-0.7-2024",
        "DyDiT-XL/2 for 0.7 of DiT's FLOPs, release of 2024",
        "dydit_0.7.pt",
        _DYDIT,
        _UNKNOWN,
        "dydit-xl-2",
    ),
    _of_model(
        "sit-xl-2-256",
        "SiT-XL/2 at 256x256, 7 M steps",
        "SiT-XL-2-256.pt",
        _SIT,
        _UNKNOWN,
        "sit-xl-2",
        "suite imagenet256",
    ),
)
