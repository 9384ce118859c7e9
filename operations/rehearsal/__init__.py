"""A rehearsal of a deployment without an account: what AWS would refuse is found in the templates."""

import os

# Before the CDK is first imported: jsii warns, in nine lines on stderr, of a Node past its end of life;
# Node 20 is what the project asks for.
for _variable in ("END_OF_LIFE_NODE_VERSION", "UNTESTED_NODE_VERSION"):
    os.environ.setdefault(f"JSII_SILENCE_WARNING_{_variable}", "20")
