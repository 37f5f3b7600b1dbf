"""A version's folder filled on the host, apart from what runs: fetched, built, verified, and only then marked whole."""

from skep.rollout import layout
from skep.rollout.artifact import Artifact, ArtifactKind
from skep.rollout.steps import RemoteStep, Upload, q

BUILD_S_MAX = 1800.0
UV_PYTHON = "3.12"
BY_UV = "uv"
"""In the place of an interpreter's path: the host has none, and uv brings one."""


def upload_of(artifact: Artifact) -> Upload | None:
    """Return the file to send."""
    if not artifact.file:
        return None
    return Upload(source=artifact.file, target=upload_path(artifact), sha256=artifact.sha256)


def upload_path(artifact: Artifact) -> str:
    """Return where a file lies on the host before it is unpacked, under a name that says its content."""
    return f"{layout.UPLOADS}/{artifact.sha256[:16]}/{artifact.name}"


def version_folder(key: str) -> str:
    """Return the folder of one version."""
    return f"{layout.VERSIONS}/{key}"


def fetch(artifact: Artifact) -> RemoteStep | None:
    """Bring the source to the host by the host's own network; nothing to do where it is sent from here."""
    if artifact.file:
        return None
    if artifact.kind is ArtifactKind.GIT:
        build = q(f"{layout.BUILD}/{artifact.key}")
        script = (
            f"rm -rf {build}\nmkdir -p {build}\ngit init -q {build}\n"
            f"GIT_TERMINAL_PROMPT=0 git -C {build} fetch -q --depth 1 -- {q(artifact.repo)} {q(artifact.commit)}\n"
            f"git -C {build} checkout -q FETCH_HEAD\n"
        )
        return RemoteStep(name="clone", detail=artifact.source, script=script, limit_s=BUILD_S_MAX)
    target = upload_path(artifact)
    part = q(f"{target}.part")
    script = (
        f"mkdir -p {q(target.rpartition('/')[0])}\n"
        f"[ -e {q(target)} ] || {{\n"
        f"  if command -v curl >/dev/null; then curl -fsSL --retry 3 -C - -o {part} -- {q(artifact.url)}\n"
        f"  else wget -q -c -O {part} -- {q(artifact.url)}; fi\n"
        f"  {_checked(artifact, f'{target}.part', 'checksum wrong')}\n"
        f"  mv {part} {q(target)}\n}}\n"
    )
    return RemoteStep(name="download", detail=artifact.url, script=script, limit_s=BUILD_S_MAX)


def _checked(artifact: Artifact, path: str, wrong: str) -> str:
    """Return sh that fails, and removes the file, unless it is the one that its checksum names."""
    return f"echo {q(f'{artifact.sha256}  {path}')} | sha256sum -c - >/dev/null || {{ rm -f {q(path)}; echo {q(wrong)}; exit 1; }}"


def stage(artifact: Artifact, python: str, *, is_checked: bool) -> RemoteStep:
    """Fill the version's folder. What an interrupted run left there goes first; nobody runs it yet.

    `is_checked`: this run itself brings the file and compares its checksum; one of an earlier run may not have outlived it.
    """
    folder = version_folder(artifact.key)
    script = f"[ ! -e {q(folder)} ] || rm -rf {q(folder)}\nmkdir -p {q(folder)}/bin\n"
    source = q(f"{layout.BUILD}/{artifact.key}")
    if artifact.kind is not ArtifactKind.GIT:
        if not is_checked:
            script += _checked(artifact, upload_path(artifact), "checksum wrong: it was damaged") + "\n"
        source = q(upload_path(artifact))
    match artifact.kind:
        case ArtifactKind.BINARY:
            script += f"mv {source} {q(folder)}/bin/skep\nchmod 700 {q(folder)}/bin/skep\n"
        case ArtifactKind.ARCHIVE:
            script += f"tar -xf {source} -C {q(folder)} --no-same-owner\n"
        case _:
            script += _environment(artifact, folder=folder, python=python, source=source)
    name = "build" if artifact.kind is ArtifactKind.GIT else "stage"
    return RemoteStep(
        name=name, detail=f"{artifact.source} → {artifact.key}", script=script, limit_s=BUILD_S_MAX
    )


def _environment(artifact: Artifact, *, folder: str, python: str, source: str) -> str:
    """Return sh that makes a virtual environment with skep in it. `source` is a wheel, a tar of wheels or a checkout."""
    pip = f"{q(folder)}/venv/bin/python -m pip install --no-input --disable-pip-version-check -q"
    if python == BY_UV:
        make = f"uv venv -q --seed --python {UV_PYTHON} {q(folder)}/venv\n"
    else:
        make = f"{q(python)} -m venv {q(folder)}/venv\n"
    link = f"ln -s ../venv/bin/skep {q(folder)}/bin/skep\n"
    if artifact.kind is ArtifactKind.WHEELHOUSE:
        house = q(f"{folder}/wheels")
        install = f"mkdir {house}\ntar -xf {source} -C {house}\n{pip} --no-index --find-links {house} skep\nrm -rf {house}\n"
    else:
        install = f'{pip} -- "$PWD"/{source}\n'
    return make + install + link


def verify(artifact: Artifact) -> RemoteStep:
    """Run what was staged; only then is its folder marked whole."""
    folder = version_folder(artifact.key)
    script = (
        f'{q(folder)}/{layout.EXECUTABLE} --version </dev/null || {{ echo "--version ended with $?"; exit 1; }}\n'
        f"{_synced(artifact, folder)}: > {q(folder)}/{layout.COMPLETE}\n"
    )
    return RemoteStep(name="verify", detail=f"{artifact.key} --version", script=script)


def _synced(artifact: Artifact, folder: str) -> str:
    """Return sh after which a power cut cannot take what was staged; a program alone needs no wait for other files."""
    what = f"{q(folder)}/{layout.EXECUTABLE}" if artifact.kind is ArtifactKind.BINARY else f"-f {q(folder)}"
    return f"sync {what} 2>/dev/null || sync\n"
