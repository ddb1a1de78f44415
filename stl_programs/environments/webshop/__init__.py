"""The shop of the WebShop benchmark, without Java: engine, search, reward, server and clients."""

from stl_programs.environments.webshop.catalogue import Catalogue, Product
from stl_programs.environments.webshop.goals import Goal
from stl_programs.environments.webshop.remote import WebShopClient
from stl_programs.environments.webshop.reward import Reward
from stl_programs.environments.webshop.tagger import RuleTagger, SpacyTagger, Tagger
from stl_programs.environments.webshop.world import WebShop

__all__ = ["Catalogue", "Goal", "Product", "Reward", "RuleTagger", "SpacyTagger", "Tagger", "WebShop", "WebShopClient"]
