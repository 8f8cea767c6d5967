"""``infinite-nature bag``: ACID bags, one module per subcommand."""

from __future__ import annotations

COMMANDS = {
}
"""Functions by name of the subcommand."""
