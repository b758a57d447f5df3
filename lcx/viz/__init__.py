"""Tables and figures from results files alone: no model, no device, no training code."""
