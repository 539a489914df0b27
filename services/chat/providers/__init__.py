"""Who answers prompts: one module for each way of speaking to a provider."""
