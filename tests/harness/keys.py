"""Keys, tokens and certificates made with the openssl command."""
import base64
import json
import subprocess
import time


def openssl(*arguments, stdin=b""):
    return subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, check=True).stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Signer:
    """An Ed25519 key: `public` is the PEM file a primary takes, `token` makes a JWT."""

    def __init__(self, directory):
        self.private, self.public = directory / "jwt.key", directory / "jwt.pub"
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.private)
        openssl("pkey", "-in", self.private, "-pubout", "-out", self.public)

    def token(self, access="rw", lives=3600):
        header, claims = {"alg": "EdDSA", "typ": "JWT"}, {"a": access, "exp": int(time.time()) + lives}
        text = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        file = self.private.with_suffix(".txt")
        file.write_text(text)
        return f"{text}.{base64url(openssl('pkeyutl', '-sign', '-rawin', '-inkey', self.private, '-in', file))}"


class Authority:
    """A certificate authority (`ca`) and a certificate that it gave to a server (`pair`)."""

    def __init__(self, directory, name="libreplica test", server="DNS:localhost,IP:127.0.0.1"):
        self.ca, self.pair = directory / "ca.pem", (directory / "server.pem", directory / "server.key")
        ca_key, request, extensions = (directory / n for n in ("ca.key", "server.csr", "server.ext"))
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", self.ca, "-days", 2, "-subj", f"/CN={name}")
        openssl("req", *curve, "-keyout", self.pair[1], "-out", request, "-subj", "/CN=localhost")
        extensions.write_text(f"subjectAltName={server}\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 2,
                "-extfile", extensions, "-out", self.pair[0])
