import pickle
import sys

from flowkit.cluster.elsewhere import Elsewhere, SchedulerPluginElsewhere, pickled_elsewhere


def test_an_object_comes_to_be_where_it_is_unpickled():
    assert pickle.loads(pickled_elsewhere("collections:OrderedDict", [("a", 1)])) == {"a": 1}


def test_the_driver_does_not_import_what_it_names():
    pickle.dumps(Elsewhere("flowkit.no_such_module:Plugin", 1))
    assert "flowkit.no_such_module" not in sys.modules


def test_a_scheduler_plugin_from_elsewhere_keeps_its_name_here():
    plugin = SchedulerPluginElsewhere("flowkit-9", "fractions:Fraction", 1, 2)
    assert plugin.name == "flowkit-9" and plugin.idempotent
    assert str(pickle.loads(pickle.dumps(plugin))) == "1/2"
