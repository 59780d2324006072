"""The status page and its JSON: a role that reads, and may only ask for actions, which the flow checks anew."""
