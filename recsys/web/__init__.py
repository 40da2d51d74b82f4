"""REST and the dashboard over HTTP: the home of Flask, beside the demo's storefront."""
