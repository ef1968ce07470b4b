"""Tokens of an identity provider: who is accepted, and every way to be refused."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from nearline.access.caller import Caller
from nearline.access.rights import Right
from nearline.access.web_tokens import TokenClaims, TokenVerifier
from nearline.errors import NotReady, SettingsError, Unauthenticated
from nearline_cli.local.certificates import CertificateAuthority
from tests.loopback_server import loopback_server

ISSUER, AUDIENCE = "https://id.example", "nearline"
KEYS = f"{ISSUER}/keys.json"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwks(**keys: Any) -> bytes:
    algorithms: dict[str, Any] = {
        "rsa": jwt.algorithms.RSAAlgorithm,
        "ec": jwt.algorithms.ECAlgorithm,
    }
    listed = []
    for name, key in keys.items():
        kind: Any = algorithms.get(name.partition("_")[0], jwt.algorithms.OKPAlgorithm)
        listed.append({**json.loads(kind.to_jwk(key.public_key())), "kid": name, "use": "sig"})
    return json.dumps({"keys": listed}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    now = time.time()
    whole = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "anna",
        "exp": now + 300,
        "tenant": "shop",
        "roles": ["staff", "night"],
        "rights": {"products": "write", "*": "read"},
    }
    return {name: value for name, value in (whole | changed).items() if value is not None}


def token(key: Any = RSA, kid: str = "rsa", algorithm: str = "RS256", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm=algorithm, headers={"kid": kid})


class Provider:
    """Public keys of a provider, which may change them or be away."""

    def __init__(self, data: bytes) -> None:
        self.data: bytes | OSError = data
        self.reads = 0

    def __call__(self, source: str) -> bytes:
        self.reads += 1
        if isinstance(self.data, OSError):
            raise self.data
        return self.data


def verifier(provider: Provider | None = None, names: TokenClaims | None = None) -> TokenVerifier:
    provider = provider or Provider(jwks(rsa=RSA, ec=EC, ed=ED))
    return TokenVerifier(ISSUER, AUDIENCE, KEYS, names or TokenClaims(), provider)


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"),
    [(RSA, "rsa", "RS256"), (RSA, "rsa", "PS512"), (EC, "ec", "ES256"), (ED, "ed", "EdDSA")],
)
async def test_a_signed_token_names_its_caller(key: Any, kid: str, algorithm: str) -> None:
    caller = await verifier().identify(token(key, kid, algorithm))
    rights = {"products": Right.WRITE, "*": Right.READ}
    assert caller == Caller("shop", ("night", "staff"), rights, "anna")


async def test_claims_may_have_other_names_and_lie_deeper() -> None:
    names = TokenClaims("app.tenant", "groups", "app.rights")
    given = token(app={"tenant": "b", "rights": "admin"}, groups="one", tenant=None, rights=None)
    caller = await verifier(names=names).identify(given)
    assert caller == Caller("b", ("one",), {"*": Right.ADMIN}, "anna")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"exp": 1_000_000_000}, "ExpiredSignature"),
        ({"exp": None}, "exp"),
        ({"nbf": 4_000_000_000}, "ImmatureSignature"),
        ({"iss": "https://other.example"}, "InvalidIssuer"),
        ({"iss": None}, "iss"),
        ({"aud": "another"}, "InvalidAudience"),
        ({"aud": None}, "aud"),
        ({"sub": None}, "sub"),
        ({"tenant": None}, "no claim 'tenant'"),
        ({"tenant": ["shop"]}, "no claim 'tenant'"),
        ({"rights": None}, "neither a right"),
        ({"rights": {"*": "root"}}, "neither a right"),
        ({"rights": 7}, "neither a right"),
        ({"rights": "service"}, "right of a service"),
        ({"tenant": "*"}, "operator of all tenants"),
        ({"key": OTHER}, "InvalidSignature"),
        ({"key": EC, "kid": "rsa", "algorithm": "ES256"}, "refused"),
        ({"kid": "unknown"}, "not one of the provider's"),
    ],
)
async def test_a_token_that_is_not_for_us_is_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(Unauthenticated, match=says):
        await verifier().identify(token(**changed))


async def test_a_token_that_is_not_signed_by_the_provider_is_refused() -> None:
    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    unsigned = jwt.encode(claims(), "", algorithm="none", headers={"kid": "rsa"})
    # The public key, which everybody knows, used as a shared secret.
    head = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"rsa"}')
    body = head + b"." + jwt.utils.base64url_encode(json.dumps(claims()).encode())
    sign = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(body, pem)
    confused = (body + b"." + jwt.utils.base64url_encode(sign)).decode()
    whole = token()
    for given in (unsigned, confused, whole[:-4], whole.rpartition(".")[0], "", "a.b.c", "é"):
        with pytest.raises(Unauthenticated):
            await verifier().identify(given)
    with pytest.raises(Unauthenticated, match="16,384"):
        await verifier().identify("a" * 20_000)


async def test_new_keys_of_the_provider_are_read_when_a_token_names_them() -> None:
    provider = Provider(jwks(rsa=RSA))
    tokens = verifier(provider)
    await tokens.identify(token())
    provider.data = jwks(rsa_2=OTHER)
    new = token(OTHER, "rsa_2")
    # Asked for at most every ten seconds, so that made-up ids cost the provider nothing.
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await tokens.identify(new)
    assert provider.reads == 1
    tokens._read_at -= 11
    assert (await tokens.identify(new)).name == "anna"
    assert provider.reads == 2
    with pytest.raises(Unauthenticated):
        await tokens.identify(token())


async def test_a_provider_that_is_away_stops_only_what_needs_it() -> None:
    provider = Provider(b"")
    provider.data = OSError("no route")
    tokens = verifier(provider)
    # One read for all.
    outcomes = await asyncio.gather(
        *(tokens.identify(token()) for _ in range(20)), return_exceptions=True
    )
    assert {type(one) for one in outcomes} == {NotReady} and "no route" in str(outcomes[0])
    assert provider.reads == 1
    provider.data = jwks(rsa=RSA)
    await tokens.identify(token())
    provider.data = OSError("no route")
    tokens._read_at -= 1_000
    reads = provider.reads
    # Keys that are known are read once more, not once for each of those calls.
    await asyncio.gather(*(tokens.identify(token()) for _ in range(20)))
    await tokens.identify(token())
    assert provider.reads == reads + 1
    # They are for a day.
    tokens._read_at, tokens._found_at = (
        one - 86_400 for one in (tokens._read_at, tokens._found_at)
    )
    with pytest.raises(NotReady, match="no route"):
        await tokens.identify(token())


async def test_keys_are_read_over_https_wherever_a_redirect_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("provider", ["127.0.0.1"], 1))
    asked: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        asked.append(path)
        head = f"302 Found\r\nLocation: {targets[path]}" if path in targets else "200 OK"
        body = jwks(rsa=RSA)
        head = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with loopback_server(handle, context) as port, loopback_server(handle) as plain:
        site = f"https://127.0.0.1:{port}"
        targets = {"/to-http": f"http://127.0.0.1:{plain}/keys", "/to-https": f"{site}/keys"}
        found = TokenVerifier(ISSUER, AUDIENCE, f"{site}/to-https")
        assert (await found.identify(token())).name == "anna"
        with pytest.raises(NotReady, match="unknown url type: http"):
            await TokenVerifier(ISSUER, AUDIENCE, f"{site}/to-http").identify(token())
    assert asked == ["/to-https", "/keys", "/to-http"]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"keys":[]}', b" " * 2_000_000, b'{"keys":[{}]}', b'{"keys":[3]}']
)
async def test_a_damaged_list_of_keys_is_named(data: bytes) -> None:
    with pytest.raises(NotReady, match=r"keys\.json"):
        await verifier(Provider(data)).identify(token())


def test_issuer_audience_and_keys_belong_together() -> None:
    for given in (("", "a", "k"), ("i", "", "k"), ("i", "a", "")):
        with pytest.raises(SettingsError, match="--token-"):
            TokenVerifier(*given)


def test_a_file_of_keys_that_cannot_be_read_is_named_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for data in (None, b"", b'{"keys":[]}'):
        if data is not None:
            file.write_bytes(data)
        with pytest.raises(SettingsError, match="--token-keys"):
            TokenVerifier(ISSUER, AUDIENCE, str(file))
    file.write_bytes(jwks(rsa=RSA))
    TokenVerifier(ISSUER, AUDIENCE, str(file))
