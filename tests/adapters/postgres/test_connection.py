"""Connections to a real PostgreSQL: with time limits, a name of their own, and verified TLS."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from local.system import servers
from tests.fixtures.settings import configured
from tickcast.adapters.postgres import connection
from tickcast.adapters.postgres.connection import Database, parameters
from tickcast.adapters.settings import DatabaseSettings

_YEAR = datetime.timedelta(days=365)
_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"


def certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate of `name`, by itself or by `issuer`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _YEAR)
        .not_valid_after(now + _YEAR)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        names = [x509.IPAddress(ipaddress.ip_address(name))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


class TlsInFront:
    """TLS as PostgreSQL speaks it, in front of a server that has none: the wheel's is built without."""

    def __init__(self, server_port: int, chain: Path) -> None:
        self._server_port = server_port
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(chain)
        self._listening = socket.create_server((servers.HOST, 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(plain,), daemon=True).start()

    def _relay(self, plain: socket.socket) -> None:
        with plain:
            if plain.recv(8) != _SSL_REQUEST:
                return
            plain.sendall(b"S")
            try:
                client = self._tls.wrap_socket(plain, server_side=True)
            except OSError:  # the client refused the certificate
                return
            with client, socket.create_connection((servers.HOST, self._server_port)) as server:
                back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
                back.start()
                self._copy(client, server)
                back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def tls(
    owner: psycopg.Connection, postgres_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TlsInFront, Path]]:
    """A server behind TLS, and the file of roots, which holds its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    root = certificate("root")
    leaf, key = certificate(servers.HOST, root)
    chain, roots = tmp_path / "chain.pem", tmp_path / "roots.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.write_bytes(pem(leaf) + private)
    roots.write_bytes(pem(root[0]))
    monkeypatch.setattr(connection, "RDS_ROOTS", roots)
    front = TlsInFront(postgres_port, chain)
    yield front, roots
    front.close()


LOADER = {"DATABASE_USER": "tickcast_loader", "DATABASE_IAM": "1"}


def behind(front: TlsInFront, host: str = servers.HOST) -> DatabaseSettings:
    return configured(DatabaseSettings, **LOADER, DATABASE_HOST=host, DATABASE_PORT=front.port)


def test_a_server_of_a_known_root_is_connected_by_tls(tls: tuple[TlsInFront, Path]) -> None:
    with Database(behind(tls[0])) as database:
        connection = database.connection()
        assert connection.pgconn.ssl_in_use
        assert connection.execute("select current_user").fetchone() == ("tickcast_loader",)


def test_a_server_of_another_root_is_refused(tls: tuple[TlsInFront, Path]) -> None:
    front, roots = tls
    roots.write_bytes(pem(certificate("another root")[0]))
    with (
        Database(behind(front)) as database,
        pytest.raises(psycopg.OperationalError, match="certificate verify"),
    ):
        database.connection()


def test_a_server_of_another_name_is_refused(tls: tuple[TlsInFront, Path]) -> None:
    settings = behind(tls[0], "localhost")
    with Database(settings) as database, pytest.raises(psycopg.OperationalError, match="does not match host"):
        database.connection()


def test_a_server_without_tls_is_refused(tls: tuple[TlsInFront, Path], postgres_port: int) -> None:
    settings = configured(DatabaseSettings, **LOADER, DATABASE_PORT=postgres_port)
    with (
        Database(settings) as database,
        pytest.raises(psycopg.OperationalError, match="not support"),
    ):
        database.connection()


def test_the_password_is_a_token_signed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setattr(socket, "create_connection", None)  # no request is made
    host = "tickcast.abc.ap-northeast-1.rds.amazonaws.com"
    found = parameters(
        configured(DatabaseSettings, **LOADER, DATABASE_HOST=host, AWS_REGION="ap-northeast-1")
    )
    token = urlsplit(f"https://{found['password']}")
    query = parse_qs(token.query)
    assert token.netloc == f"{host}:5432"
    assert (query["Action"], query["DBUser"]) == (["connect"], ["tickcast_loader"])
    assert "/ap-northeast-1/rds-db/aws4_request" in query["X-Amz-Credential"][0]
    assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", str(connection.RDS_ROOTS))


def test_the_roots_are_those_of_rds() -> None:
    roots = x509.load_pem_x509_certificates(connection.RDS_ROOTS.read_bytes())
    names = set()
    for root in roots:
        [name] = root.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names.add(str(name.value))
        root.verify_directly_issued_by(root)
        assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert root.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + 10 * _YEAR
    assert len(names) == len(roots) >= 27
    assert "Amazon RDS ap-northeast-1 Root CA RSA2048 G1" in names
    assert all(name.startswith("Amazon RDS ") and name.endswith(" Root CA RSA2048 G1") for name in names)


def test_a_statement_that_takes_too_long_is_ended(loader_settings: DatabaseSettings) -> None:
    with Database(replace(loader_settings, statement_timeout_s=1)) as database:
        connection = database.connection()
        assert connection.execute("show application_name").fetchone() == ("test",)
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(30)")
        assert database.connection() is connection  # still usable
        connection.close()
        assert database.connection() is not connection
