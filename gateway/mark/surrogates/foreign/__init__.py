"""A site's own networks as surrogates: TorchScript, ONNX, MONAI, torchxrayvision, and our own safetensors files.

A *pack description* (TOML, ``gateway.mark.surrogates.foreign.description``) names the files and says how each network
wants its images and what its output means; ``read_pack`` makes a ``SitePack`` of it. Each format has a module of its
own here, and its library is imported only when a description asks for it.

    pack = read_pack(Path("site-brain/pack.toml"), "site-brain")
    pack.check()                       # what can be known before the first patient
    marker = Marker(MarkSettings(surrogates=("site-brain",)), packs=[pack])

Safety: safetensors and ONNX files are data. A TorchScript file is a program, and it runs with the rights of the worker:
name only files whose origin you trust. Pickles are only ever read with torch's restricted unpickler.
"""

from gateway.mark.surrogates.foreign.description import ModelDescription, PackDescription, read_description
from gateway.mark.surrogates.foreign.pack import SitePack, read_pack, read_packs

__all__ = ["ModelDescription", "PackDescription", "SitePack", "read_description", "read_pack", "read_packs"]
