"""Signatures of images, as `cosign sign --key` makes them (cosign, specs/SIGNATURE_SPEC.md).

They lie in the image's own repository below a tag made of its digest, as layers of a manifest: each layer is a
document that names the digest, and its annotation the signature over the document's bytes.
"""

import base64
import binascii

from ..errors import ImageError, NotFoundError, UnsupportedError, UsageError
from ..jsontext import read_regular
from . import manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .manifest import Descriptor
    from .registry import Registry

    Check = Callable[[bytes, bytes], bool]
    """Whether the first is a signature over the second."""

TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
_KIND = "cosign container image signature"
_MAX_DOCUMENT = 1 << 16


def load_key(path: str) -> "Check":
    """The check of a public key in PEM: ECDSA as cosign makes it, or RSA or Ed25519.

    Raises UsageError for what is no such key, UnsupportedError where the cryptography package is missing.
    """
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise UnsupportedError(
            "signatures cannot be checked: the Python package cryptography is missing",
            hint="pip install 'warren[signatures]'",
        ) from error
    try:
        key = load_pem_public_key(read_regular(path, path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: no public key in PEM", hint="cosign public-key --key cosign.key") from error

    def verify(signature: bytes, data: bytes) -> None:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            raise UsageError(f"{path}: a key of a kind that does not sign images", hint="ECDSA, RSA or Ed25519")

    def check(signature: bytes, data: bytes) -> bool:
        try:
            verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return check


def check_signed(registry: "Registry", raw: bytes, check: "Check") -> None:
    """Raises ImageError where a manifest has no signature, or none by this key."""
    digest = manifest.digest_of(raw)
    try:
        found, _ = registry.manifest(digest.replace(":", "-") + ".sig")
    except NotFoundError:
        raise ImageError(f"{registry}: {digest} is not signed", hint="cosign sign --key") from None
    layers = manifest.document(found, "signatures").get("layers")
    for index, layer in enumerate(layers if isinstance(layers, list) else []):
        described = manifest.parse_descriptor(layer, f"signatures: layers[{index}]")
        if described.type == TYPE and _is_good(registry, described, digest, check):
            return
    raise ImageError(f"{registry}: {digest} has no signature by this key")


def _is_good(registry: "Registry", layer: "Descriptor", digest: str, check: "Check") -> bool:
    if layer.size > _MAX_DOCUMENT:
        return False
    data = registry.small_blob(layer)
    try:
        signature = base64.b64decode(layer.annotations.get(ANNOTATION, ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    # What is not signed by the key is not read.
    return check(signature, data) and _named(data) == digest


def _named(data: bytes) -> object:
    """The digest that the document is about; None for a document about something else."""
    critical = manifest.document(data, "signature").get("critical")
    if not isinstance(critical, dict) or critical.get("type") != _KIND:
        return None
    image = critical.get("image")
    return image.get("docker-manifest-digest") if isinstance(image, dict) else None
