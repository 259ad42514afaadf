"""Model families, one file each; importing a module registers its adapter under the `config.model_type` it serves."""
