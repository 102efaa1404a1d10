"""The published files that something in ditbench waits for. Nothing is ever downloaded."""

from __future__ import annotations

from ditbench.harness.assets.values import KnownAsset
from ditbench.harness.assets.weights import WEIGHTS

_GUIDED_DIFFUSION = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet"
_TORCHVISION_LICENCE = "none of its own; the terms of the training data, ImageNet, may apply"
_IMAGENET_LICENCE = "holds ImageNet pictures: non-commercial research and education only"

# A digest stands here if it begins with the digits in the published file's name (the convention of torch.hub) or,
# for names without digits, if several independent public projects state the same one.
_KNOWN = (
    KnownAsset(
        name="inception-2015",
        kind="asset",
        summary="the TensorFlow Inception graph of 2015-12-05, converted for torch",
        file_name="weights-inception-2015-12-05-6726825d.pth",
        published="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        licence="Apache-2.0",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        waits=("protocol adm", "protocol clean"),
    ),
    KnownAsset(
        name="dinov2-vitl14",
        kind="asset",
        summary="DINOv2 ViT-L/14 without registers, backbone only",
        file_name="dinov2_vitl14_pretrain.pth",
        published="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        licence="Apache-2.0",
        sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        waits=("protocol dinov2",),
    ),
    KnownAsset(
        name="lpips-alexnet",
        kind="asset",
        summary="torchvision's AlexNet (its linear heads come with the lpips package)",
        file_name="alexnet-owt-7be5be79.pth",
        published="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        licence=_TORCHVISION_LICENCE,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        waits=("paired lpips, alexnet",),
    ),
    KnownAsset(
        name="lpips-vgg16",
        kind="asset",
        summary="torchvision's VGG-16 (its linear heads come with the lpips package)",
        file_name="vgg16-397923af.pth",
        published="https://download.pytorch.org/models/vgg16-397923af.pth",
        licence=_TORCHVISION_LICENCE,
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        waits=("paired lpips, vgg16",),
    ),
    KnownAsset(
        name="lpips-squeezenet",
        kind="asset",
        summary="torchvision's SqueezeNet 1.1 (its linear heads come with the lpips package)",
        file_name="squeezenet1_1-b8a52dc0.pth",
        published="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        licence=_TORCHVISION_LICENCE,
        sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        waits=("paired lpips, squeezenet",),
    ),
    KnownAsset(
        name="imagenet-256",
        kind="reference",
        summary="ADM's statistics of ImageNet at 256x256, with pictures for precision, recall",
        file_name="VIRTUAL_imagenet256_labeled.npz",
        published=f"{_GUIDED_DIFFUSION}/256/VIRTUAL_imagenet256_labeled.npz",
        licence=_IMAGENET_LICENCE,
        sha256="b32732719497e42660a9affb4a966068cba0855ac449b82015e34ec376d20758",
        waits=("protocol adm at 256x256",),
    ),
    KnownAsset(
        name="imagenet-512",
        kind="reference",
        summary="ADM's statistics of ImageNet at 512x512, with pictures for precision, recall",
        file_name="VIRTUAL_imagenet512.npz",
        published=f"{_GUIDED_DIFFUSION}/512/VIRTUAL_imagenet512.npz",
        licence=_IMAGENET_LICENCE,
        sha256="",
        waits=("protocol adm at 512x512",),
    ),
    KnownAsset(
        name="admnet-guided-upsampled-imagenet-256",
        kind="reference",
        summary="50,000 samples of ADM-G + ADM-U, whose figures are published",
        file_name="admnet_guided_upsampled_imagenet256.npz",
        published=f"{_GUIDED_DIFFUSION}/256/admnet_guided_upsampled_imagenet256.npz",
        licence="none stated; published beside guided-diffusion's code, which is MIT",
        sha256="",
        waits=("self-check of protocol adm",),
    ),
)
KNOWN: dict[str, KnownAsset] = {known.name: known for known in (*_KNOWN, *WEIGHTS)}
