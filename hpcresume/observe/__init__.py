"""Reading what runs leave behind: ledgers, metrics, causes. Writes nothing into a run."""
