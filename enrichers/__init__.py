"""What enrichd finds out about an image: one module an enricher, the contract they share, models and runtimes."""
