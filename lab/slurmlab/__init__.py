"""A real Slurm cluster inside namespaces of its own. Standard library only: it runs before anything is set up.

`cli` reads the command line, `cluster` brings everything up and down in order, `daemons` starts and stops one daemon,
`nodes` makes and breaks the nodes, `namespaces` holds what they all live in, `config` writes the files they read,
`settings` says what may differ from lab to lab.
"""
