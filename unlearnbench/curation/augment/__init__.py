"""Problems generated from a split's."""
