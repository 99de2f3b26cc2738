"""Settings from the environment, an env file and secret files. Read by whoever builds the program, then passed on.

`fields` and `portal` say which settings there are, `values` what each may hold, `secret` how a secret file is
followed, `load` where they come from and how a wrong one is told. The setting `slurm_timeout_s` is given as
`CVAGENT_SLURM_TIMEOUT_S`. What a setting does belongs to the box that is handed it; defaults and limits belong here.
"""

from cvagent.settings.load import load_settings
from cvagent.settings.portal import Settings
from cvagent.settings.secret import Secret
from cvagent.settings.values import Listen, is_loopback

__all__ = ["Listen", "Secret", "Settings", "is_loopback", "load_settings"]
