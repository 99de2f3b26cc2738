"""Runs when the single file is unpacked: makes that folder a virtual environment, and goes on as its Python.

So the programs that the agent starts with its own Python find the libraries, too. In words that Python 3.6 knows.
"""

import os
import sys
from pathlib import Path

site = Path(globals()["site_packages"])
python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
if not any(site.glob(f"pydantic_core/*.cpython-{sys.version_info[0]}{sys.version_info[1]}-*.so")):
    known = sorted(int(path.name.split(".cpython-3")[1][:2]) for path in site.glob("pydantic_core/*.cpython-*.so"))
    sys.exit(f"cvagent: this file needs Python 3.{known[0]} to 3.{known[-1]}, and {sys.executable} is {python}")
program = site.parent / "bin" / python
if not program.exists():
    for folder in (site.parent / "lib" / python, program.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (site.parent / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    for link, target in ((site.parent / "lib" / python / "site-packages", site), (program, sys.executable)):
        fresh = link.with_name(f"{link.name}.{os.getpid()}")
        fresh.symlink_to(target)
        fresh.replace(link)
os.execv(str(program), [str(program), "-I", "-m", "cvagent", *sys.argv[1:]])
