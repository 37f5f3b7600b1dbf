"""An engine's source, small but real: a git repository, CMake, a C program, and what it serves."""

import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = ("git", "cmake", "make", "cc")
ENGINE = "built-engine"
_CMAKE = """cmake_minimum_required(VERSION 3.16)
project(built_engine C)
add_executable(built-engine main.c)
target_compile_definitions(built-engine PRIVATE PYTHON="{python}" SERVER="{server}")
add_custom_command(TARGET built-engine POST_BUILD COMMAND "${{CMAKE_COMMAND}}" -P "${{CMAKE_SOURCE_DIR}}/count.cmake" VERBATIM)
"""
_COUNT = """file(APPEND "{builds}" "built\\n")
"""
_MAIN = """#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "--version") == 0) { puts("built-engine 1.0.0"); return 0; }
    execl(PYTHON, PYTHON, SERVER, count > 1 ? arguments[1] : "0", (char *)0);
    return 127;
}
"""
_SERVER = """import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self): self.answer({"object": "list", "data": []})
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.answer({"choices": [{"text": "x"}]})

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def missing_tools() -> str:
    """Say which tool a build would lack here; empty when all are here."""
    found = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(found)}" if found else ""


def builds_file(folder: Path) -> Path:
    """Where a source of `write_source` tells its builds, outside every build folder: a line for each time it was linked."""
    return folder.with_name(f"{folder.name}.builds")


def write_source(folder: Path) -> Path:
    """Make a repository with the tag v1; return it."""
    folder.mkdir()
    server = folder / "server.py"
    server.write_text(_SERVER)
    (folder / "CMakeLists.txt").write_text(_CMAKE.format(python=sys.executable, server=server))
    (folder / "count.cmake").write_text(_COUNT.format(builds=builds_file(folder)))
    (folder / "main.c").write_text(_MAIN)
    who = ("-c", "user.name=lab", "-c", "user.email=lab@localhost", "-c", "init.defaultBranch=main")
    for argv in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "An engine"), ("tag", "v1")):
        subprocess.run(["git", *who, *argv], cwd=folder, check=True, capture_output=True)
    return folder
