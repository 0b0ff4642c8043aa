"""What a run shows of itself while it runs: its series, and the dashboard and the alerts that are made of them."""
