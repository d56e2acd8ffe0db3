"""What the owner of a store does with it now and then: verify, repair, compact, convert."""
