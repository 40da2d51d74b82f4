"""The demo's storefront: a shop's own pages and catalogue, and a page that uses REST as any page may."""
