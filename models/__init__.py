"""Model families, one file each; importing a module registers its family under the `config.model_type` it serves."""
