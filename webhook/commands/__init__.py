"""The cluster side's commands: webhook, controller, hooks of the charts."""
