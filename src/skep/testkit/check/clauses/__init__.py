"""The clauses, one file an area; importing this room registers all of them."""

from skep.testkit.check.clauses import backpressure as backpressure
from skep.testkit.check.clauses import cancel as cancel
from skep.testkit.check.clauses import determinism as determinism
from skep.testkit.check.clauses import endpoints as endpoints
from skep.testkit.check.clauses import errors as errors
from skep.testkit.check.clauses import lifecycle as lifecycle
from skep.testkit.check.clauses import limits as limits
from skep.testkit.check.clauses import stream as stream
from skep.testkit.check.clauses import truncation as truncation
