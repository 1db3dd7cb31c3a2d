# SPDX-License-Identifier: Apache-2.0
"""What bench/gpu and a bundle's run-gpu do on a card, stage after stage. Python's own library alone is needed."""
